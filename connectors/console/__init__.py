"""The web console: pages made on the server over the same readers and services as the API. Changes go through the API itself."""
