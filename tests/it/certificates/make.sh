#!/bin/sh
# Makes the certificates in this folder, for servers of the tests on loopback. They were made once; nothing trusts them.
# Each server has the key of server.key; the keys of the authorities are not kept.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cat > "$work/ca.conf" <<CONF
[ca]
default_ca = it
[it]
new_certs_dir = $work
database = $work/index
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
extendedKeyUsage = serverAuth
subjectAltName = \${ENV::NAMES}
CONF
: > "$work/index"
export NAMES=

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

# issue FILE KEY COMMON_NAME EXTENSIONS FIRST_YEAR END_YEAR SIGNER...
issue() {
    file=$1 key=$2 name=$3 extensions=$4 first=$5 end=$6
    shift 6
    openssl req -new -key "$key" -subj "/CN=$name" -out "$work/request"
    openssl ca -batch -notext -config "$work/ca.conf" -extensions "$extensions" -in "$work/request" \
        -startdate "${first}0101000000Z" -enddate "${end}0101000000Z" -out "$file" "$@"
}

for authority in authority other_authority; do
    new_key "$work/$authority.key"
    issue $authority.pem "$work/$authority.key" "Test $authority" authority 2000 2100 \
        -selfsign -keyfile "$work/$authority.key"
done
new_key server.key
by_authority="-cert authority.pem -keyfile $work/authority.key"
NAMES=IP:127.0.0.1,DNS:api.test.example,DNS:cdn.test.example
issue server.pem server.key "Test server" server 2000 2100 $by_authority
issue expired.pem server.key "Test server" server 2000 2001 $by_authority
issue not_yet_valid.pem server.key "Test server" server 2099 2100 $by_authority
NAMES=DNS:another.example
issue another_name.pem server.key "Test server" server 2000 2100 $by_authority
