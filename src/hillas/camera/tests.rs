use super::*;

fn find(camera: &Camera, x: f64, y: f64) -> usize {
    let at = |i: &usize| libm::hypot(camera.x_cm[*i] - x, camera.y_cm[*i] - y) < 0.001;
    (0..camera.pixels()).find(at).unwrap_or_else(|| panic!("no pixel at {x}, {y}"))
}

#[test]
fn cameras_equal_the_coordinate_files_of_taiga() {
    let first = Camera::by_name("taiga-560").unwrap();
    let second = Camera::by_name("taiga-595").unwrap();
    assert_eq!((first.pixels(), second.pixels()), (560, 595));
    // Coordinate file of TAIGA for IACT01: place in the file, x and y [cm].
    for (place, x, y) in [
        (0, -5.935, -5.270),
        (1, -6.326, -8.245),
        (6, -3.555, -7.097),
        (7, -7.532, 2.505),
        (21, 0.0, 0.0),
        (27, 2.380, -1.826),
        (28, 3.194, -15.550),
        (9 * 28, 18.257, -20.559),
        (15 * 28 + 27, 11.056, 24.264),
        (448, -22.143, -28.857),
        (448 + 21 + 20, 2.833, -38.197),
        (448 + 42 + 20, -4.008, 29.274),
        (448 + 63 + 20, -27.747, 8.192),
        (448 + 84 + 20, -21.359, -22.908),
        (553, 19.854, -28.334),
    ] {
        assert_eq!(find(&first, x, y), place);
    }
    // The same for IACT02, with the number of neighbours.
    for (place, x, y, neighbours) in [
        (0, -5.935, -5.270, 6),
        (8 * 28 + 10, -1.236, 30.422, 5),
        (8 * 28 + 17, 4.699, 35.692, 3),
        (17 * 28, 17.805, 15.811, 6),
        (17 * 28 + 1, 15.033, 14.663, 6),
        (17 * 28 + 27, 24.945, 10.332, 6),
        (19 * 28 + 20, 24.523, 27.030, 4),
        (594, -12.231, -33.187, 5),
    ] {
        assert_eq!(find(&second, x, y), place);
        let others = second.neighbours(place).iter().filter(|j| **j as usize != place);
        assert_eq!(others.count(), neighbours);
        assert_eq!(second.is_edge(place), neighbours < 6);
    }
}

#[test]
fn neighbours_are_mutual_and_one_pitch_apart() {
    for name in BUILT_IN_CAMERAS {
        let camera = Camera::by_name(name).unwrap();
        assert!((camera.pitch_deg() - 0.3618).abs() < 1e-3);
        for i in 0..camera.pixels() {
            for j in camera.neighbours(i).iter().map(|j| *j as usize).filter(|j| *j != i) {
                assert!(camera.neighbours(j).contains(&(i as u16)));
                let [a, b] = [camera.position_deg(i), camera.position_deg(j)];
                let distance = libm::hypot(a[0] - b[0], a[1] - b[1]);
                assert!((distance - camera.pitch_deg()).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn invalid_pixel_positions_are_refused() {
    let line = |n: usize, step: f64| (0..n).map(|i| i as f64 * step).collect::<Vec<_>>();
    let message = |x: Vec<f64>, y: Vec<f64>, focal: f64| {
        let error = Camera::new(x, y, focal).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error.to_string()
    };
    assert!(message(line(3, 1.0), line(3, 1.0), 475.0).contains("7 to"));
    assert!(message(line(9, 1.0), line(8, 1.0), 475.0).contains("9 x and 8 y"));
    assert!(message(vec![f64::NAN; 9], line(9, 1.0), 475.0).contains("row 0"));
    assert!(message(line(9, 30.0), vec![0.0; 9], 475.0).contains("too wide"));
    assert!(message(vec![1.0; 9], vec![2.0; 9], 475.0).contains("share"));
    let mut far = line(9, 1e-25);
    far[8] = 1.0;
    assert!(message(far, vec![0.0; 9], 475.0).contains("share"), "positions beyond integers");
    assert!(message(line(9, 1.0), vec![0.0; 9], f64::NAN).contains("focal"));
    let mut close = line(20, 3.0);
    close[7] = close[6] + 1.0;
    assert!(message(close, vec![0.0; 20], 475.0).contains("too close"));
    let error = Camera::by_name("taiga-559").unwrap_err();
    assert!(error.to_string().contains("did you mean 'taiga-5"), "{error}");
}

#[test]
fn camera_with_one_pixel_missing_is_accepted() {
    let mut camera = Camera::by_name("taiga-560").unwrap();
    camera.x_cm.remove(21);
    camera.y_cm.remove(21);
    let camera = Camera::new(camera.x_cm, camera.y_cm, FOCAL_LENGTH_CM).unwrap();
    assert_eq!(camera.pixels(), 559);
    assert!(camera.is_edge(find(&camera, -0.392, -2.974)));
}
