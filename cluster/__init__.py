"""What a cluster is, with no pyinfra and no I/O: settings, topology, lock, kubeadm documents."""
