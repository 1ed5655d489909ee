"""Open Images: its files, its boxes, its pictures. `data.sources.openimages` draws from them."""
