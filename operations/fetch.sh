# Pieces of the bundle fetched from servers, checked, and put in their places under $target.
#
# Set are: target, incoming (where pieces lie until they are whole), date (of every piece), and the servers as "$@".
# Standard input holds the servers' certificates, then a line `sha256  size  path-in-a-URL  path` for each piece.
# A part that an earlier run has left is continued; what has the size of a piece and not its sha256 is thrown away.
umask 022
mkdir -p "$target" "$incoming" && cd "$incoming" && exec 9< . || exit 1
flock -n 9 || {
    cat > /dev/null # else whoever writes it might fail first, in other words
    echo "$incoming: another run still fetches pieces. Run again when it has ended." >&2
    exit 1
}
cat > request || exit 1
sed -n '/BEGIN CERT/,/END CERT/p' request > ca.crt
grep -E '^[0-9a-f]{64}  ' request | sort -u > wanted

# `sha256 *name` of the files named; openssl uses the processor's own instructions and is several times as fast.
sums() {
    if command -v openssl > /dev/null; then xargs -r openssl dgst -sha256 -r; else xargs -r sha256sum -b; fi 2> /dev/null
}

# Writes what is not here whole to `todo`.
look() {
    rm -f -- *.FAILED
    cut -c 1-64 wanted | uniq | while read -r sum; do test ! -e "$sum" || echo "$sum"; done | sums |
        awk '$1 == substr($2, 2) { print "^" $1 }' > whole
    grep -v -f whole wanted | sort -u -k 1,1 > todo
    while read -r sum size url path; do
        test -e "$sum" || continue
        if test "$(stat -c %s "$sum")" -ge "$size"; then
            rm "$sum" && echo "$path: was thrown away, for its sha256 was not $sum" >&2
        fi
        touch -c -d "$date" "$sum"
    done < todo
}

# curl without what the host may have set for it
ask() {
    curl --disable -sS --fail --noproxy '*' --cacert ca.crt --connect-timeout 10 "$@"
}

# apt's own helper and curl both go on with a file that was cut; one or the other is on every host.
fetch() {
    if test -x /usr/lib/apt/apt-helper; then
        while read -r sum size url path; do echo "$1/pieces/$url $incoming/$sum SHA256:$sum"; done < todo |
            xargs -n 300 /usr/lib/apt/apt-helper -o APT::Sandbox::User=root -o Acquire::https::Proxy=DIRECT \
                -o Acquire::https::CAInfo="$incoming/ca.crt" -o Acquire::https::Timeout=20 -o Acquire::Retries=2 \
                download-file
    elif ask -o /dev/null "$1/v2/"; then
        while read -r sum size url path; do printf 'url = "%s"\noutput = "%s"\n' "$1/pieces/$url" "$sum"; done < todo |
            ask -C - --retry 2 --speed-limit 1000 --speed-time 20 -K -
    fi
}

look
for server in "$@"; do
    test -s todo || break
    fetch "$server" > log 2>&1
    # Not by their status: that of curl is the last piece's alone.
    grep -v -e ^Get: -e ^Fetched -e ^Ign: log | head -n 8 > said
    test ! -s said || { echo "$server:"; cat said; } >&2
    look
done
if test -s todo; then
    some=$(while read -r sum size url path; do echo "$path"; done < todo | sort | head -n 3 | paste -s -d ' ')
    echo "pieces that did not come: $(wc -l < todo), such as $some." >&2
    echo "Mend what the servers say above and run again; what has come is kept." >&2
    exit 1
fi
cut -c 1-64 wanted | xargs -r touch -d "$date" || exit 1
while read -r sum size url path; do path=$target/$path && echo "${path%/*}"; done < wanted |
    sort -u | xargs -r -d '\n' mkdir -p || exit 1
while read -r sum size url path; do
    # Linked, not moved: two pieces can be of the same bytes.
    ln -fT "$sum" "$target/$path" || exit 1
done < wanted
cut -c 1-64 wanted | xargs rm -f request wanted whole todo log said ca.crt
