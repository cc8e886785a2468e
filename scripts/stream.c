// Reads memory as STREAM does (McCalpin, 1995), with a sum in place of its four loops: every thread goes through its share
// of one array of doubles, and the best of several passes counts. It has nothing in common with the plain read of
// package llama, which scripts/limits compares with it.
//
//   stream MEBIBYTES PASSES     OMP_NUM_THREADS is the number of threads
//
// It prints the best rate in bytes a second. Compile it with -O3 -march=native -ffast-math -fopenmp.
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	if (argc != 3 || atol(argv[1]) < 1 || atoi(argv[2]) < 1) {
		fprintf(stderr, "usage: stream MEBIBYTES PASSES\n");
		return 2;
	}
	const size_t n = (size_t)atol(argv[1]) * 1024 * 1024 / sizeof(double);
	double *a = aligned_alloc(64, n * sizeof(double));
	if (a == NULL) {
		perror("stream");
		return 1;
	}
#pragma omp parallel for schedule(static)
	for (size_t i = 0; i < n; i++) a[i] = 1;

	double best = 0, check = 0;
	for (int pass = 0; pass < atoi(argv[2]); pass++) {
		double sum = 0;
		const double start = omp_get_wtime();
#pragma omp parallel for schedule(static) reduction(+ : sum)
		for (size_t i = 0; i < n; i++) sum += a[i];
		const double rate = (double)(n * sizeof(double)) / (omp_get_wtime() - start);
		if (rate > best) best = rate;
		check += sum;
	}
	if (check != (double)n * atoi(argv[2])) {
		fprintf(stderr, "stream: the sum is wrong\n");
		return 1;
	}
	printf("%.0f\n", best);
	free(a);
	return 0;
}
