"""The question that dptrain began with, answered in numbers: chapters, their check, their page."""
