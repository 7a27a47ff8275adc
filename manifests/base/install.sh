#!/bin/sh
# Runs once on each node, privileged, before the daemons: sets the node-wide sysctls, then installs the plugin and its
# configuration. The configuration comes last, since it is what makes the node ready for pods. Each file is replaced by
# rename, so that the runtime never sees half of it; a second run changes nothing.
set -eu

causeway-fib-sync --setup-node

install_file() { # FROM TO MODE
    if ! cmp -s "$1" "$2"; then
        cp "$1" "$2.causeway-new"
        chmod "$3" "$2.causeway-new"
        mv -f "$2.causeway-new" "$2"
        echo "installed ${2#/host}"
    fi
}
install_file "$(command -v causeway-cni)" /host/opt/cni/bin/causeway-cni 0755
install_file /etc/causeway-cni/10-causeway.conflist /host/etc/cni/net.d/10-causeway.conflist 0644
