"""The notebooks' exercises: what is asked, cases to try an answer on, and misconceptions to recognize."""
