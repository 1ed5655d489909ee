"""Where images come from: your own files, Open Images, the miniature world. `fetch` draws data sets from them."""
