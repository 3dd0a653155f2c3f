"""What `evaluate` is made of: what was held out, who is judged on it, what is said about it, and the page."""
