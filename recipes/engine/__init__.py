"""The one engine: a recipe is a list of steps, a run goes through them and reports."""
