"""What an experiment is made of: arrays and ids; opens no named dataset."""
