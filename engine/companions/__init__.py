"""Two small nets that finish a picture: `upscaler` makes it four times larger, `matting` cuts its objects out.

Each has a folder of its own with weights.safetensors (fp16) and config.json; engine/pocket trains them.
"""
