"""`padlite serve`: personalized chat behind the API that OpenAI's clients speak, on this machine, safe by default.

`app.build` makes the ASGI application, `running.run` listens. Needs the extra `padlite[serve]`.
"""
