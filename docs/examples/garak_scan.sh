#!/usr/bin/env bash
# garak against a model that `bitlens serve MODEL` serves: its report, as JSONL and as a page, in FOLDER.
#
#   docs/examples/garak_scan.sh URL MODEL FOLDER [PROBE ...]     # GARAK names the command, default garak
set -euo pipefail

url="$1" model="$2" folder="$(mkdir -p "$3" && cd "$3" && pwd)"
shift 3
probes="$(IFS=,; echo "${*:-goodside.ThreatenJSON}")"
cat >"$folder/server.json" <<EOF
{"openai": {"OpenAICompatible": {"uri": "$url/v1", "max_tokens": 32, "temperature": 0.0, "stop": []}}}
EOF
export OPENAICOMPATIBLE_API_KEY="${OPENAICOMPATIBLE_API_KEY:-none}"
export XDG_DATA_HOME="$folder" XDG_CACHE_HOME="$folder" XDG_CONFIG_HOME="$folder"
"${GARAK:-garak}" --target_type openai.OpenAICompatible --target_name "$model" \
    --generator_option_file "$folder/server.json" --probes "$probes" --generations 1 \
    --report_prefix "$folder/scan"
