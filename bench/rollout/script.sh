# What people write first: the files everywhere, then one node after another.
#   script.sh SSH_CONFIG LAB FILES COMMAND   files are in FILES/1 and FILES/2; the command is run on the host for each $node
set -eu
config=$1 lab=$2 files=$3 command=$4
for host in 1 2; do
    rsync -a -e "ssh -F $config" "$files/$host/" "$lab$host:/data/conf/"
done
for host in 1 2; do
    # Nodes are spread in turn.
    ssh -F "$config" "$lab$host" "set -eu; for node in $(seq -f 'web%g' -s ' ' "$host" 2 6); do $command; done"
done
