"""What joint training is worth: all parts at once, against parts frozen or trained in turn."""
