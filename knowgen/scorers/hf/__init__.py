"""A vision-language model in process as the judge."""
