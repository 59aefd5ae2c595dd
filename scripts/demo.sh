#!/usr/bin/env bash
# The quick start: a cluster, the operator, the examples, and what became of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tests/cluster/up.sh
# shellcheck source=/dev/null
source .local/env

title() { printf '\n\033[1m%s\033[0m\n' "$*"; }
sql() { psql -X -P pager=off -c "$1" "$DATABASE_URL"; }
# status NAMESPACE NAME PATH: a field of a Build's status.
status() { kubectl -n "$1" get build "$2" -o jsonpath="{.status.$3}"; }

title "kubectl apply -f examples/"
again=$(kubectl get builds --all-namespaces -l example=image-factory -o name 2>/dev/null | wc -l)
kubectl apply -f examples/
before=$(status team-b greeting buildId)
if ((again > 0)); then
	echo "The examples were built before, and applying the same again does nothing. A new value of an"
	echo "annotation makes a new run:"
	kubectl annotate builds --all-namespaces -l example=image-factory --overwrite "imagefactory.dev/rerun=$(date +%s)"
	for _ in $(seq 100); do
		[[ $(status team-b greeting buildId) == "$before" ]] || break
		sleep 0.2
	done
fi

title "The log of team-b/greeting, as it is written (its copy in Postgres outlives the Pod)"
kubectl -n team-b wait build/greeting --for='jsonpath={.status.job}' --timeout=120s >/dev/null
job=$(status team-b greeting job)
# Refused until the container has started.
for _ in $(seq 240); do
	kubectl -n team-b logs -f "job/$job" -c build 2>/dev/null && break
	sleep 0.5
done

title "kubectl get builds -A"
kubectl wait builds --all-namespaces -l example=image-factory --for=condition=Finished --timeout=300s >/dev/null
kubectl get builds --all-namespaces -o wide

id=$(status team-b greeting buildId)
title "The way of build $id through build_status_history"
sql "select sequence, from_status, to_status, changed_at, reason
     from build_status_history where build_id = '$id' order by sequence"

title "What it took, in milliseconds"
sql "select queue_wait_milliseconds as queue, build_execution_milliseconds as build,
            artifact_push_milliseconds as push, total_duration_milliseconds as total
     from build_results where build_id = '$id'"

title "Its image"
reference=$(status team-b greeting image.reference)
path=${reference#*/}
in_registry=$(curl -fsSI -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
	"http://${reference%%/*}/v2/${path%:*}/manifests/${path##*:}" | tr -d '\r' | awk -F': ' 'tolower($1) == "docker-content-digest" {print $2}')
echo "status:    $reference@$(status team-b greeting image.digest)"
echo "registry:  $reference@$in_registry"

title "Why team-a/failing failed"
kubectl -n team-a get build failing -o jsonpath='{.status.failure.reason}{" at stage "}{.status.failure.stage}{", exit code "}{.status.failure.exitCode}{": "}{.status.failure.message}{"\n"}'

cat <<'NEXT'

Next:
  . .local/env                                  # kubectl, KUBECONFIG, DATABASE_URL, REGISTRY
  kubectl -n team-b get build greeting -o yaml  # the status in full
  kubectl explain build.spec                    # every field
  psql "$DATABASE_URL" -c 'select * from build_queue'
  make down                                     # stop everything; WIPE=1 forgets it too
NEXT
