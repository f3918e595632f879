"""Tables, figures and the HTML page; reads run folders only."""
