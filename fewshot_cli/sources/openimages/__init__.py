"""Open Images: its files, its boxes, its images, and the source that draws from them."""
