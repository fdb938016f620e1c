#!/bin/sh
# On the node, as root: folders for the volumes, and the images into containerd. Arguments: the images' tar files.
set -eu
mkdir -p /var/lib/lcia/objects /var/lib/lcia/keys /var/lib/lcia/leak-key /var/lib/lcia/mlflow /var/lib/lcia/zenml /var/lib/lcia/database
for file in "$@"; do
    ctr --namespace k8s.io images import "$file"
done
