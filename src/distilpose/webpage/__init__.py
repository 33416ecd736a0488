"""The web page that shows the predictions of a model."""
