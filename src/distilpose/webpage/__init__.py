"""The page in the browser that shows what a model finds on a photograph."""
