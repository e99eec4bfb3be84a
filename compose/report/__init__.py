"""What a job has found, as one HTML file and a picture."""
