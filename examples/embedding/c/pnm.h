/* Reads binary PGM and PPM files (P5 and P6, 8 bits), without a dependency. */
#ifndef PNM_H
#define PNM_H

#include <stdint.h>

typedef struct pnm_image {
  uint8_t *pixels; /* rows from the top, packed; free() it */
  uint32_t width;
  uint32_t height;
  uint32_t channels; /* 1 grey, 3 RGB */
} pnm_image;

/* Returns 0, or a text that says what is wrong. */
const char *read_pnm(const char *path, pnm_image *image);

#endif
