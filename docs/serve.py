"""Serves an export of kgradcam over HTTP; it needs tensorflow, fastapi and uvicorn.

MODEL=models/lite0/1 uvicorn --app-dir docs serve:app
curl --data-binary @cat.jpg http://localhost:8000/explain
"""

import os
from typing import Any

import tensorflow as tf
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

MAX_BYTES = 2**25

model = tf.saved_model.load(os.environ["MODEL"])
explain = model.signatures["explain_bytes"]
app = FastAPI()


@app.post("/explain")
async def explain_picture(request: Request) -> dict[str, Any]:
    """Explains the JPEG or PNG picture in the body of a request."""
    length = request.headers.get("content-length", "0")
    content = bytearray()
    if int(length) <= MAX_BYTES:
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BYTES:
                break
    if max(int(length), len(content)) > MAX_BYTES:
        raise HTTPException(413, f"A picture has at most {MAX_BYTES} bytes.")
    try:
        found = await run_in_threadpool(explain, image_bytes=tf.constant([bytes(content)]))
    except tf.errors.InvalidArgumentError as error:
        raise HTTPException(422, "The body must be a JPEG or PNG picture of fair size.") from error
    answer = {name: value.numpy()[0].tolist() for name, value in found.items()}
    answer["names"] = [name.decode() for name in answer.get("names", [])]
    return answer
