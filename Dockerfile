# The command `efsstate` in a container, for a task or a machine that mounts the file system:
#
#     docker build --tag efsstate .
#     docker run --rm --volume /mnt/efs:/mnt/efs efsstate stat

FROM python:3.13-slim AS build
COPY . /source
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheels /source

FROM python:3.13-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[cli,aws]" && rm -r /wheels
# Without a name of its own: files on the mount belong to numbers. Pass --user for another.
USER 1000:1000
ENTRYPOINT ["efsstate"]
CMD ["--help"]
