/* Prints size and offsets of every struct, for comparison with zeroflaw/embedding/abi.py. */
#include <stddef.h>
#include <stdio.h>
#include <zeroflaw/zeroflaw.h>

#define SIZE(type) printf("%s %zu\n", #type, sizeof(type))
#define FIELD(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(type, field))

int main(void) {
  SIZE(zeroflaw_config);
  FIELD(zeroflaw_config, struct_size);
  FIELD(zeroflaw_config, python_home);
  FIELD(zeroflaw_config, bundle);
  FIELD(zeroflaw_config, backend);
  FIELD(zeroflaw_config, precision);
  FIELD(zeroflaw_config, model_cache);
  FIELD(zeroflaw_config, encoder_schedule);
  FIELD(zeroflaw_config, max_frame_pixels);
  FIELD(zeroflaw_config, threads);
  FIELD(zeroflaw_config, queue_size);
  FIELD(zeroflaw_config, when_full);
  SIZE(zeroflaw_frame);
  FIELD(zeroflaw_frame, struct_size);
  FIELD(zeroflaw_frame, pixels);
  FIELD(zeroflaw_frame, stride);
  FIELD(zeroflaw_frame, width);
  FIELD(zeroflaw_frame, height);
  FIELD(zeroflaw_frame, pixel_format);
  FIELD(zeroflaw_frame, white_level);
  FIELD(zeroflaw_frame, product);
  FIELD(zeroflaw_frame, frame_id);
  FIELD(zeroflaw_frame, part_id);
  FIELD(zeroflaw_frame, deadline_ms);
  SIZE(zeroflaw_polygon);
  FIELD(zeroflaw_polygon, points);
  FIELD(zeroflaw_polygon, point_count);
  SIZE(zeroflaw_timing);
  FIELD(zeroflaw_timing, stage);
  FIELD(zeroflaw_timing, milliseconds);
  SIZE(zeroflaw_region);
  FIELD(zeroflaw_region, struct_size);
  FIELD(zeroflaw_region, x);
  FIELD(zeroflaw_region, y);
  FIELD(zeroflaw_region, width);
  FIELD(zeroflaw_region, height);
  FIELD(zeroflaw_region, area);
  FIELD(zeroflaw_region, centroid_x);
  FIELD(zeroflaw_region, centroid_y);
  FIELD(zeroflaw_region, peak_score);
  FIELD(zeroflaw_region, polygon);
  FIELD(zeroflaw_region, holes);
  FIELD(zeroflaw_region, hole_count);
  SIZE(zeroflaw_inspection_view);
  FIELD(zeroflaw_inspection_view, struct_size);
  FIELD(zeroflaw_inspection_view, status);
  FIELD(zeroflaw_inspection_view, decision);
  FIELD(zeroflaw_inspection_view, deadline_missed);
  FIELD(zeroflaw_inspection_view, frame_width);
  FIELD(zeroflaw_inspection_view, frame_height);
  FIELD(zeroflaw_inspection_view, map_width);
  FIELD(zeroflaw_inspection_view, map_height);
  FIELD(zeroflaw_inspection_view, ticket);
  FIELD(zeroflaw_inspection_view, error);
  FIELD(zeroflaw_inspection_view, frame_id);
  FIELD(zeroflaw_inspection_view, part_id);
  FIELD(zeroflaw_inspection_view, product);
  FIELD(zeroflaw_inspection_view, outcome);
  FIELD(zeroflaw_inspection_view, bundle);
  FIELD(zeroflaw_inspection_view, backend);
  FIELD(zeroflaw_inspection_view, score);
  FIELD(zeroflaw_inspection_view, threshold);
  FIELD(zeroflaw_inspection_view, queue_ms);
  FIELD(zeroflaw_inspection_view, mask);
  FIELD(zeroflaw_inspection_view, mask_stride);
  FIELD(zeroflaw_inspection_view, anomaly_map);
  FIELD(zeroflaw_inspection_view, score_map);
  FIELD(zeroflaw_inspection_view, regions);
  FIELD(zeroflaw_inspection_view, region_count);
  FIELD(zeroflaw_inspection_view, timings);
  FIELD(zeroflaw_inspection_view, timing_count);
  FIELD(zeroflaw_inspection_view, warnings);
  FIELD(zeroflaw_inspection_view, warning_count);
  SIZE(zeroflaw_health_report);
  FIELD(zeroflaw_health_report, struct_size);
  FIELD(zeroflaw_health_report, state);
  FIELD(zeroflaw_health_report, queue_size);
  FIELD(zeroflaw_health_report, queued);
  FIELD(zeroflaw_health_report, running);
  FIELD(zeroflaw_health_report, results);
  FIELD(zeroflaw_health_report, heartbeat);
  FIELD(zeroflaw_health_report, inspected);
  FIELD(zeroflaw_health_report, failed);
  FIELD(zeroflaw_health_report, late);
  FIELD(zeroflaw_health_report, dropped);
  FIELD(zeroflaw_health_report, last_error);
  SIZE(zeroflaw_point);
  FIELD(zeroflaw_point, x);
  FIELD(zeroflaw_point, y);
  return 0;
}
