"""A plugin package that does everything wrong, one class a fault. Tests install it into a temporary folder."""
