"""Serves bridges: `engine` generates images, `web` handles HTTP, and `page` is the browser's page.

browser, OpenAI clients --HTTP--> web --jobs--> engine (one thread per device) --pictures--> web
"""
