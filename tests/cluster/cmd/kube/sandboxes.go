package main

import (
	"context"
	"fmt"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"
)

// removeSandboxes stops and removes every Pod that the container runtime at the
// given socket knows, the way a kubelet would: processes, mounts, network and
// addresses go. It is how `make down` leaves nothing behind.
func removeSandboxes(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: remove-sandboxes unix:///path/of/containerd.sock")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	runtime, err := cri.NewRemoteRuntimeService(ctx, args[0], 30*time.Second, nil, false)
	if err != nil {
		return fmt.Errorf("failed to reach the container runtime: %w", err)
	}
	sandboxes, err := runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{})
	if err != nil {
		return fmt.Errorf("failed to list Pods: %w", err)
	}
	failed := 0
	for _, sandbox := range sandboxes {
		if err := runtime.StopPodSandbox(ctx, sandbox.Id); err != nil {
			fmt.Fprintf(os.Stderr, "failed to stop %s: %v\n", sandbox.Metadata.Name, err)
		}
		if err := runtime.RemovePodSandbox(ctx, sandbox.Id); err != nil {
			fmt.Fprintf(os.Stderr, "failed to remove %s: %v\n", sandbox.Metadata.Name, err)
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d Pods are left", failed, len(sandboxes))
	}
	return nil
}
