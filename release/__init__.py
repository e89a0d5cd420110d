"""What is checked and written before a release."""
