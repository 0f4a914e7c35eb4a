"""The lab's question asked of any model: what is measured, and the page that shows it."""
