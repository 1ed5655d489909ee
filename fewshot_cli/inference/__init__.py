"""From images to detections, and the boxes drawn on images."""
