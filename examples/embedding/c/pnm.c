#include "pnm.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* The next number of the header; comments run from # to the end of the line. */
static long next_number(FILE *file) {
  int character = getc(file);
  while (isspace(character) || character == '#') {
    if (character == '#')
      while (character != '\n' && character != EOF) character = getc(file);
    character = getc(file);
  }
  long number = 0;
  int digits = 0;
  for (; isdigit(character) && digits < 9; character = getc(file), ++digits)
    number = 10 * number + (character - '0');
  /* One character of white space ends a number, and the header. */
  return digits > 0 && isspace(character) ? number : -1;
}

static const char *read_pixels(FILE *file, pnm_image *image) {
  int kind = getc(file) == 'P' ? getc(file) : EOF;
  if (kind != '5' && kind != '6') return "is not a binary PGM or PPM file (P5 or P6)";
  long width = next_number(file);
  long height = next_number(file);
  long white = next_number(file);
  if (width <= 0 || height <= 0 || white != 255) return "has a header that is not of 8-bit pixels";
  image->width = (uint32_t)width;
  image->height = (uint32_t)height;
  image->channels = kind == '6' ? 3 : 1;
  size_t size = (size_t)width * (size_t)height * image->channels;
  image->pixels = malloc(size);
  if (image->pixels == NULL) return "does not fit in memory";
  if (fread(image->pixels, 1, size, file) == size) return NULL;
  free(image->pixels);
  image->pixels = NULL;
  return "ends early";
}

const char *read_pnm(const char *path, pnm_image *image) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return "cannot be opened";
  const char *wrong = read_pixels(file, image);
  fclose(file);
  return wrong;
}
