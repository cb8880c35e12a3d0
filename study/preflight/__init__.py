"""What a study needs, looked at before it begins."""
