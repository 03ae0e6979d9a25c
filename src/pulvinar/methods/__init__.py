"""One file is one method: its Config, its functions, and METHOD, which names them."""
