"""Bridges as a service: `engine` draws, `web` speaks HTTP, `page` is what a browser shows.

browser, OpenAI clients --HTTP--> web --jobs--> engine (one thread per device) --pictures--> web
"""
