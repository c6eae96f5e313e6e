"""Speech-aware text LMs, p(text | speech, text)."""
