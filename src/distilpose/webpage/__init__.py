"""The page in the browser that shows what a model predicts on an image."""
