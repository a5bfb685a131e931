"""What brings the logs of other programs into this one: a pure reader, and a thin writer."""
