#!/usr/bin/env bash
# Proves that the cluster does what builds need, without the operator: names and
# Services inside a Pod, a clone and a push over http, and one real build each by
# BuildKit with buildx and by buildah, with their logs read back.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=/dev/null
source "$here/../../.local/env"
space=cluster-check
buildah=$(curl -fsS "http://$REGISTRY/v2/buildah/tags/list" | jq -r '.tags[0]')
buildkit=$(curl -fsS "http://$REGISTRY/v2/buildkit/tags/list" | jq -r '.tags[0]')
buildx=$(curl -fsS "http://$REGISTRY/v2/buildx/tags/list" | jq -r '.tags[0]')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git init -q -b main "$work/repo"
printf 'FROM %s/busybox:1\nCOPY greeting /greeting\nRUN cat /greeting && id\n' "$REGISTRY" >"$work/repo/Dockerfile"
date >"$work/repo/greeting"
git -C "$work/repo" add . && git -C "$work/repo" -c user.name=check -c user.email=check@example.com commit -qm "A greeting"
git -C "$work/repo" push -qf "$GIT_URL/git/check.git" HEAD:main
git -C "$work/repo" push -qf "http://$GIT_USER:$GIT_PASSWORD@${GIT_URL#http://}/private/check.git" HEAD:main
if git ls-remote "$GIT_URL/private/check.git" </dev/null >/dev/null 2>&1; then
	echo "the private repository is open" >&2
	exit 1
fi

kubectl delete namespace $space --ignore-not-found >/dev/null
kubectl create namespace $space >/dev/null
kubectl label namespace $space pod-security.kubernetes.io/enforce=privileged >/dev/null
sed -e "s|REGISTRY|$REGISTRY|g" -e "s|GIT_URL|$GIT_URL|g" -e "s|BUILDAH_TAG|$buildah|" -e "s|BUILDKIT_TAG|$buildkit|" -e "s|BUILDX_TAG|$buildx|" "$here/check.yaml" | kubectl -n $space apply -f - >/dev/null
for pod in names buildx buildah; do
	if ! kubectl -n $space wait "pod/$pod" --for='jsonpath={.status.phase}=Succeeded' --timeout=120s; then
		kubectl -n $space describe pod "$pod" | tail -n 20
		kubectl -n $space logs "$pod" --all-containers --tail=50
		exit 1
	fi
done
for container in build buildkitd; do kubectl -n $space logs buildx -c $container | tail -n 4; done
kubectl -n $space logs buildah | tail -n 4
for image in check-buildx check-buildah; do
	skopeo inspect --tls-verify=false "docker://$REGISTRY/$image:1" --format "{{.Name}} {{.Digest}}"
done
kubectl delete namespace $space --wait=false >/dev/null
