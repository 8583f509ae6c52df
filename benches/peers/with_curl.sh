#!/bin/sh
# Requests a generation, polls it every ten seconds, prints the response: in a shell, with curl.
set -e
url=$AIMLAPI_BASE_URL/generate/video/google/generation
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

id=$(curl -sS --fail --max-time 30 "$url" -H "Authorization: Bearer $AIMLAPI_KEY" -H "Content-Type: application/json" \
    -d '{"model": "google/veo3", "prompt": "A dragon over the tallest mountain"}' | field id)
echo "Gen_ID:  $id"

for _ in $(seq 100); do
    response=$(curl -sS --fail --max-time 30 --get --data-urlencode "generation_id=$id" "$url" \
        -H "Authorization: Bearer $AIMLAPI_KEY")
    status=$(printf '%s' "$response" | field status)
    echo "Status: $status"
    case $status in
    waiting | active | queued | generating) sleep 10 ;;
    *)
        printf 'Processing complete:\n %s\n' "$response"
        exit
        ;;
    esac
done
exit 1
