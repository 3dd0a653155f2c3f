"""Session state: what each user did in the last minutes, as the events that were posted tell it."""
