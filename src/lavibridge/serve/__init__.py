"""Bridges as a service: `engine` draws, `web` speaks HTTP, and a browser shows `page`.

browser, OpenAI clients --HTTP--> web --jobs--> engine (one thread per device) --pictures--> web
"""
