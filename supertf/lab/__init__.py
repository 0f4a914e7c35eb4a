"""What notebooks need: set-up, checked exercises, figures; and the book made of executed notebooks."""
