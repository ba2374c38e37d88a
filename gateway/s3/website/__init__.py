"""Website configurations, and the pages that a website answers errors with."""
