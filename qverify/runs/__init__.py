"""What is asked, and answers kept on disk so that they can be added to and read back."""
