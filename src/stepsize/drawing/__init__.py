"""Drawing: what a picture shows as a value, as text and as SVG; the standard library only."""
