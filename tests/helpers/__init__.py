"""What several tests share: local servers, tiny models, sample data and small plugins."""
