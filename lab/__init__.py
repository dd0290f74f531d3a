"""Real Linux machines on one host: systemd-nspawn nodes on a bridge of their own."""
